# A fresh Debian 12 in a chroot, as root: installs, builds, trains, tests, each within its time
# Cost: about 25 min, the downloads apart; needs root and debootstrap
# Options: --mirror URL, --no-train, --keep (leave the machine in the cache)
# A mount name space of its own: a stopped check leaves no mount behind.
case " $* " in *" --in-namespace "*) ;; *) exec unshare --mount sh "$0" "$@" --in-namespace ;; esac
check_name=chroot
suite=bookworm
. spec/support/chroot.sh
