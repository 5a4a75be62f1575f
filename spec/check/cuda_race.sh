# The kernels for GPUs on the emulated device: forward, in reverse under AddressSanitizer and UBSan, in random order under the checker of races; planted faults
# Cost: about 30 min on two cores, a third of it builds
# Options: patterns for ./unic test (default: spec/kernels)
check_name=cuda_race
. spec/support/check.sh
folder=.cache/check/cuda_race
root=$PWD
mkdir -p $folder
[ $# -gt 0 ] || set -- spec/kernels

if ! ./unic -e '' --device cuda-emu >$folder/build.log 2>&1; then
  echo "skip $check_name.all $(tail -n 1 $folder/build.log)"
  finish
fi
cmake --build build --target unic_cuda_emu_race unic_cuda_emu_asan >>$folder/build.log 2>&1 || { tail -n 40 $folder/build.log >&2; holds builds no; finish; }
for kind in race asan; do ln -sf "$root/build/unic.so" .build-emu-$kind/unic.so; done

# As in asan.sh: luajit is not instrumented, so the sanitizers' runtime comes by LD_PRELOAD, and what specs start does not inherit it.
cat >$folder/luajit <<END
#!/bin/sh
LD_PRELOAD=$(cc -print-file-name=libasan.so) exec $(command -v luajit) -e 'local ffi = require "ffi" ffi.cdef "int unsetenv(const char *)" ffi.C.unsetenv "LD_PRELOAD"' "\$@"
END
chmod +x $folder/luajit

# plain COMMAND..., race COMMAND..., asan COMMAND...: with that build of the device.
plain() { "$@"; }
race() { LUA_CPATH="$root/.build-emu-race/?.so;;" "$@"; }
asan() {
  env PATH="$root/$folder:$PATH" LUA_CPATH="$root/.build-emu-asan/?.so;;" \
    ASAN_OPTIONS="detect_leaks=0:intercept_tls_get_addr=0:halt_on_error=1:allocator_may_return_null=1" UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1" "$@"
}

# suite ORDER BUILD PATTERNS: the specs in the background, as soon as a core is free (a device computes in one thread). The pipe holds a line for each core.
mkfifo $folder/cores 2>/dev/null
exec 9<>$folder/cores
cores=$(nproc)
for i in $(seq $cores); do echo >&9; done
export UNIC_THREADS=1
suite() {
  order=$1 build=$2
  shift 2
  read -r line <&9
  {
    export EMU_ORDER=$order
    $build ./unic test "$@" --device cuda-emu --slowest 5 >$folder/$order.log 2>&1 9>&-
    echo >&9
  } &
}

# judge ORDER: how many of a suite's specs failed.
judge() {
  line=$(tail -n 1 $folder/$1.log)
  note $1 "$line"
  failed=$(echo "$line" | sed -n 's/^[1-9][0-9]* passed, \([0-9]*\) failed, .*/\1/p')
  [ "$failed" = 0 ] || tail -n 60 $folder/$1.log >&2
  at_most ${1}_failed "${failed:-none}" 0
}

# planted BUILD NAME PATTERN: what the device says about a planted fault.
planted() {
  library=$root/.build-emu-$1/unic_cuda_emu.so
  $1 ./unic -e 'local ffi = require "ffi" ffi.cdef "const char *unic_emu_planted(const char *);" print(ffi.string(ffi.load(arg[1]).unic_emu_planted(arg[2])))' \
    "$library" "$2" >$folder/planted.log 2>&1
  word=$(echo "$2" | tr ' ' '_')
  if grep -q "$3" $folder/planted.log; then holds $1_finds_$word yes; else cat $folder/planted.log >&2; holds $1_finds_$word no; fi
}

planted race "first barrier" "a race: .*planted.cpp:[0-9]"
planted race "later barriers" "a race: .*planted.cpp:[0-9]"
planted race "warp" "a race: .*planted.cpp:[0-9]"
planted race "blocks" "a race: a write .* and a write"
planted race "correct" "^$"
planted asan "beyond the array" "planted.cpp.*out of bounds"
planted asan "beyond the tensor" "AddressSanitizer: use-after-poison"
planted asan "correct" "^$"

# Each build takes an order of the threads of its own. The longest first.
suite random race "$@"
suite reverse asan "$@"
suite forward plain "$@"
wait
for order in random reverse forward; do judge $order; done
finish
