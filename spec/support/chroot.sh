# A fresh Debian machine in a folder: read with `. spec/support/chroot.sh` from the root of the tree, as root, after setting check_name and suite;
# the options are those of the script that reads it.
# The base system and the downloaded packages are kept in ${XDG_CACHE_HOME:-~/.cache}/unic, so that only the first run downloads. What a
# stopped run has measured is kept beside them, for the same commit. Mirror and proxy are those of this machine's apt; --mirror URL names another.
. spec/support/check.sh
mirror=
train=yes
keep=no
while [ $# -gt 0 ]; do
  case $1 in
    --mirror) mirror=$2; shift ;;
    --no-train) train=no ;;
    --keep) keep=yes ;;
    --in-namespace) ;;
    *) echo "$check_name: unknown option '$1', expected --mirror URL, --no-train or --keep" >&2; exit 2 ;;
  esac
  shift
done

[ "$(id -u)" = 0 ] || { echo "$check_name needs root, for chroot and mount" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "$check_name needs debootstrap (Debian package debootstrap)" >&2; exit 1; }

tree=$PWD
commit=$(git rev-parse --short=12 HEAD)
[ -z "$(git status --porcelain)" ] || echo "$check_name: changes that are not committed are not part of this check" >&2
cache=${XDG_CACHE_HOME:-$HOME/.cache}/unic/$suite
base=$cache/base.tar
machine=$cache/machine-$commit
log=$cache/$check_name.log
mkdir -p "$cache/debs/partial" "$machine/measured"
: >"$log"
chroot=$machine/root

# This machine's Debian archives, one "uri suite component" a line, moved to the wanted suite.
archives() {
  here=$(. /etc/os-release; echo "$VERSION_CODENAME")
  apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    awk -v here="$here" -v suite="$suite" '
      $2 == here || $2 == here "-updates" || $2 == here "-security" { sub("^" here, suite, $2); if (!seen[$0]++) print $1, $2, $3 }'
}
if [ -n "$mirror" ]; then
  sources="$mirror $suite main"
else
  sources=$(archives)
  mirror=$(echo "$sources" | awk -v suite="$suite" '$2 == suite && $3 == "main" { print $1; exit }')
fi
[ -n "$mirror" ] || { echo "$check_name: this machine's apt names no Debian archive; give one with --mirror URL" >&2; exit 1; }

fail() {
  tail -n 40 "$log" >&2
  echo "$check_name: $1 (log: $log)" >&2
  exit 1
}

# The base system: made once, unpacked for every run.
if [ ! -f "$base" ]; then
  begin=$(now)
  rm -rf "$cache/making"
  debootstrap --variant=minbase "$suite" "$cache/making" "$mirror" >>"$log" 2>&1 || fail "debootstrap failed"
  rm -f "$cache"/making/var/cache/apt/archives/*.deb
  tar -C "$cache/making" --numeric-owner -cf "$base.new" . && mv "$base.new" "$base" || fail "no room for the base system"
  rm -rf "$cache/making"
  note debootstrap_seconds "$(since "$begin")"
fi

if [ ! -f "$machine/measured/unpacked" ]; then
  rm -rf "$chroot"
  mkdir -p "$chroot"
  tar -C "$chroot" --numeric-owner -xf "$base" || fail "cannot unpack the base system"
  echo "$sources" | awk '{ print "deb", $1, $2, $3 }' >"$chroot/etc/apt/sources.list"
  # How this machine reaches its archive: proxies, time-outs, names, certificates.
  apt-config dump | grep -E '^Acquire::' >"$chroot/etc/apt/apt.conf.d/90host"
  # The packages stay in the cache between runs.
  echo 'Binary::apt::APT::Keep-Downloaded-Packages "1"; APT::Keep-Downloaded-Packages "1";' >"$chroot/etc/apt/apt.conf.d/91keep"
  cp -L /etc/resolv.conf /etc/hosts "$chroot/etc/"
  if [ -d /usr/local/share/ca-certificates ]; then
    mkdir -p "$chroot/usr/local/share/ca-certificates" "$chroot/etc/ssl"
    cp -rL /usr/local/share/ca-certificates/. "$chroot/usr/local/share/ca-certificates/"
    [ ! -d /etc/ssl/certs ] || cp -rL /etc/ssl/certs "$chroot/etc/ssl/" 2>/dev/null
  fi
  git clone -q --no-local "$tree" "$chroot/root/unic" || fail "cannot clone"
  : >"$machine/measured/unpacked"
fi

# Mounts in a name space of this process (see the two scripts that read this file): they end with it, however it ends.
for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
  IFS=: read -r name major minor <<END
$node
END
  [ -e "$chroot/dev/$name" ] || mknod -m 666 "$chroot/dev/$name" c "$major" "$minor"
done
# Terminals, for the specs of the prompt; where they cannot be had, those specs say so.
mkdir -p "$chroot/dev/shm" "$chroot/dev/pts"
if mount -t devpts -o newinstance,ptmxmode=0666 devpts "$chroot/dev/pts"; then ln -sfn pts/ptmx "$chroot/dev/ptmx"; fi
mount -t proc proc "$chroot/proc" || fail "cannot mount /proc"
mount -t tmpfs tmpfs "$chroot/dev/shm" || fail "cannot mount /dev/shm"
mkdir -p "$chroot/var/cache/apt/archives"
mount --bind "$cache/debs" "$chroot/var/cache/apt/archives" || fail "cannot mount the package cache"

# Run in the clone with a bare environment; what the caller has set (compilers, paths, CUDA) must not help.
inside() {
  env -i HOME=/root USER=root LANG=C.UTF-8 TERM="${TERM:-dumb}" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} ${no_proxy:+no_proxy="$no_proxy"} \
    chroot "$chroot" /bin/sh -c "cd /root/unic && $1" </dev/null >>"$log" 2>&1
}

# measure NAME COMMAND LIMIT: the seconds of a command that must succeed; a run that was stopped later finds them.
measure() {
  if [ ! -f "$machine/measured/$1" ]; then
    begin=$(now)
    echo "== $2" >>"$log"
    if inside "timeout $3 $2"; then since "$begin" >"$machine/measured/$1"; else fail "failed: $2"; fi
  fi
  cat "$machine/measured/$1"
}

# The first call installs and builds; the second build, from nothing, is the one with a limit, since it downloads nothing.
bootstrap=$(measure bootstrap "./unic -e 'print(1)'" 3600) || exit 1
note bootstrap_seconds_with_packages "$bootstrap"
note packages_mb "$(du -sm "$cache/debs" | cut -f1)"
build=$(measure build "sh -c 'rm -rf build && UNIC_APT=0 ./unic info'" 1200) || exit 1
at_most build_seconds "$build" 150
if [ "$train" = yes ]; then
  wall=$(measure train "./unic recipes/pretrain_medunic.lua" 1800) || exit 1
  note train_wall_seconds "$wall"
  line=$(grep '^result ' "$log" | tail -n 1)
  [ -z "$line" ] || echo "$line" >"$machine/measured/result"
  line=$(cat "$machine/measured/result" 2>/dev/null)
  note result "$line"
  seconds=$(echo "$line" | sed -n 's/.* seconds=\([0-9.]*\).*/\1/p')
  at_most train_seconds "${seconds:-none}" 240
fi
suite_seconds=$(measure suite "./unic test" 2400) || exit 1
note suite "$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log" | tail -n 1)"
at_most suite_seconds "$suite_seconds" 480

if [ $keep = yes ]; then
  note machine "$chroot"
else
  umount "$chroot/var/cache/apt/archives" "$chroot/dev/shm" "$chroot/dev/pts" "$chroot/proc" 2>/dev/null
  rm -rf "$machine"
fi
finish
