#!/bin/sh
# exports.sh NM LIBRARY ARCHIVE SONAME: both define pool_* symbols, the same ones and no others; the
# library's have versions, and its SONAME is that.
set -eu
nm=$1 library=$2 archive=$3 soname=$4

# names NM-ARGUMENTS: the lines of a file's name and of an empty one around it are not symbols;
# absolute ones (A) are the versions themselves. Newer nms append @@VERSION.
names() { "$nm" --defined-only "$@" | awk 'NF == 3 && $2 != "A" { sub("@.*", "", $3); print $3 }' | sort; }

symbols=$(names -D "$library")
inside=$(names -g "$archive")
strangers=$(printf '%s\n' "$symbols" "$inside" | grep -v '^pool_' || true)
if [ -n "$strangers" ]; then
    printf 'exported by mistake:\n%s\n' "$strangers"
    exit 1
fi
printf '%s\n' "$symbols" | grep -qx pool_create || { echo "pool_create is not exported"; exit 1; }
[ "$symbols" = "$inside" ] || {
    printf 'in one of libpool.so and libpool.a only (is libpool.map complete? ./dev abi --update):\n'
    printf '%s\n' "$symbols" "$inside" | sort | uniq -u
    exit 1
}
unversioned=$(objdump -T "$library" | grep -E '\bBase +pool_' || true)
[ -z "$unversioned" ] || { printf 'without a version:\n%s\n' "$unversioned"; exit 1; }
objdump -p "$library" | awk '$1 == "SONAME" { print $2 }' | grep -qxF "$soname" || {
    echo "the SONAME is not $soname"
    exit 1
}
echo "$(printf '%s\n' "$symbols" | wc -l) symbols, all of them pool_*"
