#!/bin/sh
# /usr/sbin/lab-init, pid 1 of a guest. Kernel command line: lab.node=NAME lab.address=ADDRESS
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=755 run /run
for word in $(cat /proc/cmdline); do
  case $word in
  lab.node=*) node=${word#*=} ;;
  lab.address=*) address=${word#*=} ;;
  esac
done
hostname "$node"
echo "$node" >/etc/hostname
ip link set lo up
ip address add "$address/24" dev eth0
ip link set eth0 up
mkdir -p /run/lock /run/lab /run/pacemaker /run/standfast /var/log/corosync /var/log/pacemaker /var/log/standfast
install -d -m 1755 /run/resource-agents
install -d -o hacluster -g haclient -m 750 /run/crm
chown hacluster:haclient /var/log/pacemaker
install -d -o hacluster -g haclient -m 750 /var/lib/pacemaker/cib
install -o hacluster -g haclient -m 600 /usr/share/standfast-lab/cib.xml /var/lib/pacemaker/cib/cib.xml
chmod 700 /root /root/.ssh

# Each daemon is restarted by nobody: a test that ends one starts it again.
/opt/standfast/bin/python3 -m standfast.lab.vm.command_server </dev/null >/var/log/command-server.log 2>&1 &
corosync -f </dev/null >/dev/console 2>&1 &
tries=0
until corosync-cfgtool -s >/dev/null 2>&1 || [ $tries -ge 300 ]; do
  tries=$((tries + 1))
  sleep 0.2
done
PCMK_logfile=/var/log/pacemaker/pacemaker.log PCMK_logfacility=none pacemakerd -f </dev/null >/dev/console 2>&1 &
standfastd </dev/null >>/var/log/standfast/standfastd.log 2>&1 &
echo "lab: $node has started everything after $(cut -d' ' -f1 /proc/uptime) s" >/dev/console
while :; do
  wait
  sleep 1
done
