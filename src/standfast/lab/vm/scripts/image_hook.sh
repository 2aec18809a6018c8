#!/bin/sh
# Called by mmdebstrap when the guests' packages are installed: image_hook.sh ROOT OUT
# Leaves the unpacked kernel and busybox in OUT, and fence_virsh, without the 80 other agents, in ROOT.
set -eu
root=$1 out=$2
chroot "$root" sh -ec '
  mkdir /fetched
  cd /fetched
  kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n "s/^ *Depends: //p" | head -n 1)
  apt-get -q -o APT::Sandbox::User=root download "$kernel" busybox-static fence-agents
'
mv "$root/fetched" "$out/fetched"
for package in "$out"/fetched/linux-image-*.deb; do dpkg-deb -x "$package" "$out/kernel"; done
for package in "$out"/fetched/busybox-static_*.deb; do dpkg-deb -x "$package" "$out/busybox"; done
for package in "$out"/fetched/fence-agents_*.deb; do
  dpkg-deb --fsys-tarfile "$package" | tar -x -C "$root" ./usr/sbin/fence_virsh ./usr/share/fence
done
rm -rf "$out/fetched"
# Debian compiles what it installs; this was only unpacked. Pacemaker waits 5 s for an agent's metadata.
chroot "$root" python3 -m compileall -q /usr/share/fence
chroot "$root" dpkg-query -W >"$out/packages.txt"
# Nothing that is of this build alone: host names, machine ids and keys come with the lab.
rm -f "$root/etc/hostname" "$root/etc/resolv.conf" "$root/etc/machine-id" "$root"/etc/ssh/ssh_host_*
