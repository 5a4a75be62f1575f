# A fresh Debian 13 in a chroot, as root: installs, builds, tests, each within its time
# Cost: about 15 min, the downloads apart; needs root and debootstrap
# Options: --mirror URL, --no-train, --keep (leave the machine in the cache)
# A mount name space of its own: a stopped check leaves no mount behind.
case " $* " in *" --in-namespace "*) ;; *) exec unshare --mount sh "$0" "$@" --in-namespace ;; esac
check_name=chroot13
suite=trixie
set -- --no-train "$@"
. spec/support/chroot.sh
