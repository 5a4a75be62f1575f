# The whole suite under AddressSanitizer, LeakSanitizer and UBSan, the arena bypassed so that every tensor has its own red zones
# Cost: about 25 min, 2 of them for the build
# Options: patterns for ./unic test
check_name=asan
. spec/support/check.sh
mkdir -p .cache/check
log=.cache/check/asan.log

cmake --preset asan >"$log" 2>&1 && cmake --build --preset asan >>"$log" 2>&1 || { tail -n 40 "$log" >&2; holds builds no; finish; }
holds builds yes

# luajit itself is not instrumented, so the runtime has to be there before the module is.
asan=$(cc -print-file-name=libasan.so)
# verify_asan_link_order: a tool that a spec starts need not come first. The stack of an error is the interpreter's, so fast unwinding is fine.
reports=$PWD/.cache/check/asan-report
rm -f "$reports".*
root=$PWD
LUA_PATH="$root/lua/?.lua;$root/lua/?/init.lua;;" LUA_CPATH="$root/.build-asan/?.so;;" \
ASAN_OPTIONS="detect_leaks=1:halt_on_error=1:verify_asan_link_order=0:log_path=$reports:allocator_may_return_null=1" \
LSAN_OPTIONS="suppressions=$root/spec/support/lsan.supp:print_suppressions=0" \
UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1:log_path=$reports" \
LD_PRELOAD=$asan luajit "$root/lua/unic/main.lua" test "$@" >>"$log" 2>&1
status=$?
line=$(tail -n 1 "$log")
echo "note asan.suite $line"
if [ $status = 0 ]; then holds suite yes; else tail -n 60 "$log" >&2; holds suite no; fi
count=$(ls "$reports".* 2>/dev/null | wc -l)
[ "$count" = 0 ] || head -n 60 "$reports".* >&2
at_most reports "$count" 0
finish
