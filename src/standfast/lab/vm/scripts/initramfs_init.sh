#!/bin/busybox sh
# /init of the guests' initramfs. The root is an overlay of read-only disks under a layer in memory: the
# guest's whole state is its RAM, so a migration has no storage to move.
# Disks: vda the image, vdb the Python packages, vdc what the lab adds. With `lab.probe` it only says that
# a guest can boot here.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
case " $(cat /proc/cmdline) " in
*" lab.probe "*)
  echo LAB-PROBE-OK
  poweroff -f
  ;;
esac
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do
  insmod "/modules/$module.ko" || echo "lab: $module cannot be loaded"
done
rounds=0
while [ ! -b /dev/vdc ] && [ $rounds -lt 200 ]; do rounds=$((rounds + 1)); sleep 0.05; done
for disk in vda vdb vdc; do
  mkdir -p "/layers/$disk"
  mount -t ext4 -o ro,noload "/dev/$disk" "/layers/$disk" || echo "lab: /dev/$disk cannot be mounted"
done
mkdir -p /memory /root-of-guest
mount -t tmpfs -o size=60% memory /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/layers/vdc:/layers/vdb:/layers/vda,upperdir=/memory/upper,workdir=/memory/work \
  root /root-of-guest || echo "lab: no root"
mount --move /dev /root-of-guest/dev
mount --move /proc /root-of-guest/proc
mount --move /sys /root-of-guest/sys
exec switch_root /root-of-guest /usr/sbin/lab-init
