"""A lab of real guests: libvirt hosts in namespaces of this machine, QEMU guests, real live migrations."""
