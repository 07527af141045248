#!/bin/sh
# exports.sh NM LIBRARY ARCHIVE: both define pool_* symbols, the same ones and no others; the SONAME
# is libpool.so.0.
set -eu
nm=$1 library=$2 archive=$3

# names NM-ARGUMENTS: the lines of a file's name and of an empty one around it are not symbols.
names() { "$nm" --defined-only "$@" | awk 'NF == 3 { print $3 }' | sort; }

symbols=$(names -D "$library")
inside=$(names -g "$archive")
strangers=$(printf '%s\n' "$symbols" "$inside" | grep -v '^pool_' || true)
if [ -n "$strangers" ]; then
    printf 'exported by mistake:\n%s\n' "$strangers"
    exit 1
fi
printf '%s\n' "$symbols" | grep -qx pool_create || { echo "pool_create is not exported"; exit 1; }
[ "$symbols" = "$inside" ] || { echo "libpool.so and libpool.a export different names"; exit 1; }
objdump -p "$library" | grep -q 'SONAME *libpool\.so\.0$' || { echo "not libpool.so.0"; exit 1; }
echo "$(printf '%s\n' "$symbols" | wc -l) symbols, all of them pool_*"
