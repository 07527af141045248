#!/bin/sh
# exports.sh LIBRARY: the library defines pool_* symbols, no others, and its SONAME is libpool.so.0.
set -eu

symbols=$(nm -D --defined-only "$1" | awk '{ print $NF }')
strangers=$(printf '%s\n' "$symbols" | grep -v '^pool_' || true)
if [ -n "$strangers" ]; then
    printf 'exported by mistake:\n%s\n' "$strangers"
    exit 1
fi
printf '%s\n' "$symbols" | grep -qx pool_create || { echo "pool_create is not exported"; exit 1; }
objdump -p "$1" | grep -q 'SONAME *libpool\.so\.0$' || { echo "not libpool.so.0"; exit 1; }
echo "$(printf '%s\n' "$symbols" | wc -l) symbols, all of them pool_*"
