# The same result lines for checks written in sh: set check_name, then `. spec/support/check.sh` (a POSIX `.` takes no arguments).
check_short=0

# at_most NAME VALUE LIMIT: numbers with or without a fraction; a VALUE that is none is short.
at_most() {
  if awk -v v="$2" -v l="$3" 'BEGIN { exit !(v ~ /^[0-9.]+$/ && v + 0 <= l + 0) }'; then
    echo "pass $check_name.$1 $2 <=$3"
  else
    echo "short $check_name.$1 $2 <=$3"
    check_short=1
  fi
}

# holds NAME yes|no
holds() {
  if [ "$2" = yes ]; then echo "pass $check_name.$1 yes yes"; else echo "short $check_name.$1 ${2:-no} yes"; check_short=1; fi
}

note() { echo "note $check_name.$1 $2"; }

# Seconds with tenths since the epoch, and since a time that `now` printed.
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f", b - a }'; }

finish() { exit $check_short; }
