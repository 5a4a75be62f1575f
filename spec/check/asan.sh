# The whole suite under AddressSanitizer, LeakSanitizer and UBSan, the arena bypassed so that every tensor has its own red zones
# Cost: about 25 min, 2 of them for the build
# Options: patterns for ./unic test
check_name=asan
. spec/support/check.sh
mkdir -p .cache/check/asan
log=.cache/check/asan.log
root=$PWD

cmake --preset asan >"$log" 2>&1 && cmake --build --preset asan >>"$log" 2>&1 || { tail -n 40 "$log" >&2; holds builds no; finish; }
holds builds yes

# luajit itself is not instrumented, so the sanitizers' runtime has to be there before the module is: by LD_PRELOAD. What specs start through
# the shell is not ours (date and git leak by design), so the variable is taken back at once, and a luajit in front of the path sets it anew.
cat >.cache/check/asan/luajit <<END
#!/bin/sh
LD_PRELOAD=$(cc -print-file-name=libasan.so) exec $(command -v luajit) -e 'local ffi = require "ffi" ffi.cdef "int unsetenv(const char *)" ffi.C.unsetenv "LD_PRELOAD"' "\$@"
END
chmod +x .cache/check/asan/luajit

reports=$root/.cache/check/asan/report
rm -f "$reports".*
# A file may ask for more memory than there is: the readers answer with a sentence, so malloc has to return NULL here as it does elsewhere.
# intercept_tls_get_addr=0: the leak search crashes on thread-local variables of a library that was loaded with dlopen, once a thread of OpenMP's has
# touched them (a dozen lines of C that load oneDNN and multiply on two threads show it).
env PATH="$root/.cache/check/asan:$PATH" LUA_CPATH="$root/.build-asan/?.so;;" \
  ASAN_OPTIONS="detect_leaks=1:intercept_tls_get_addr=0:halt_on_error=1:allocator_may_return_null=1:log_path=$reports" \
  LSAN_OPTIONS="suppressions=$root/spec/support/lsan.supp:print_suppressions=0" \
  UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1:log_path=$reports" \
  ./unic test "$@" >>"$log" 2>&1
status=$?
note suite "$(tail -n 1 "$log")"
if [ $status = 0 ]; then holds suite yes; else tail -n 60 "$log" >&2; holds suite no; fi
count=$(ls "$reports".* 2>/dev/null | wc -l)
[ "$count" = 0 ] || cat "$reports".* | head -n 200 >&2
at_most reports "$count" 0
finish
