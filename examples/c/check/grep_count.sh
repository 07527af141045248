#!/bin/sh
# grep_count.sh PROGRAM FILE...: it says what grep -c says: output, errors and exit status.
set -eu
program=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
LC_ALL=C
export LC_ALL

printf 'no line end at the end: needle' >"$work/cut"
: >"$work/empty"
# Larger than a job's part, with lines of all lengths, some across the borders of parts.
awk 'BEGIN { for (i = 0; i < 60000; i++) { printf "%d ", i; for (j = 0; j < i % 97; j++) printf "x"
    if (i % 7 == 0) printf " Needle"; print "" } }' >"$work/large"
mkdir "$work/directory"
: >"$work/secret"
chmod 0 "$work/secret" # root reads it all the same, here and there

same() { # same ARGUMENTS...
    expected=0 status=0
    grep -c "$@" >"$work/wanted" 2>"$work/wanted.errors" || expected=$?
    "$program" -w 2 "$@" >"$work/found" 2>"$work/found.errors" || status=$?
    sed -i 's/^grep_count: /grep: /' "$work/found.errors"
    if [ "$expected" != "$status" ] || ! diff "$work/wanted" "$work/found" ||
        ! diff "$work/wanted.errors" "$work/found.errors"; then
        echo "grep -c $*: status $expected, here $status"
        exit 1
    fi
    cases=$((cases + 1))
}

cases=0
same needle "$work/cut" "$work/empty" "$work/large"
same -i needle "$work/cut" "$work/empty" "$work/large"
same -v needle "$work/cut" "$work/empty" "$work/large"
same -E 'x{50}|needle$' "$work/cut" "$work/large"
same '^[0-9]* x*$' "$work/large"
same -H '^7' "$work/large"
same -h '^7' "$work/large" "$work/cut"
same -F '.*' "$work/large" "$@"
same -iF 'POOL_' "$@"
same 'nowhere to be found [0-9]' "$work/large"
same needle "$work/missing" "$work/cut" "$work/directory" "$work/secret"
"$program" -t -w 2 'x.*Needle' "$work/large" "$@" >/dev/null
echo "$cases cases, all as grep -c"
