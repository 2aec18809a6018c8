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

# The fencer asks for an agent's metadata again and again as devices are registered, and stands still meanwhile.
# An emulated guest that is busy needs more than its 10 s to start Python for that (seen, eight times in one
# start of a lab). They are printed once, here; all else is the agent as it is, under its own name.
mkdir -p "$root/usr/lib/lab"
mv "$root/usr/sbin/fence_virsh" "$root/usr/lib/lab/fence_virsh"
chroot "$root" /usr/lib/lab/fence_virsh -o metadata >"$root/usr/lib/lab/fence_virsh.xml"
cat >"$root/usr/sbin/fence_virsh" <<'AGENT'
#!/bin/sh
if [ $# -gt 0 ]; then
  exec /usr/lib/lab/fence_virsh "$@"
fi
options=$(cat)
case "
$options
" in
*"
action=metadata
"*) exec cat /usr/lib/lab/fence_virsh.xml ;;
esac
exec /usr/lib/lab/fence_virsh <<OPTIONS
$options
OPTIONS
AGENT
chmod 755 "$root/usr/sbin/fence_virsh"
