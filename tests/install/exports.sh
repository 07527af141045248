#!/bin/sh
# exports.sh NM LIBRARY SONAME [ARCHIVE]: LIBRARY defines pool_* symbols and no others, each with a
# version, its SONAME is that, and ARCHIVE has the same symbols.
set -eu
nm=$1 library=$2 soname=$3 archive=${4:-}

# names NM-ARGUMENTS: the lines of a file's name and of an empty one around it are not symbols;
# absolute ones (A) are the versions themselves. Newer nms append @@VERSION.
names() { "$nm" --defined-only "$@" | awk 'NF == 3 && $2 != "A" { sub("@.*", "", $3); print $3 }' | sort; }

symbols=$(names -D "$library")
inside=$symbols
[ -z "$archive" ] || inside=$(names -g "$archive")
[ -n "$symbols" ] || { echo "it exports nothing"; exit 1; }
strangers=$(printf '%s\n' "$symbols" "$inside" | grep -v '^pool_' || true)
if [ -n "$strangers" ]; then
    printf 'exported by mistake:\n%s\n' "$strangers"
    exit 1
fi
[ "$symbols" = "$inside" ] || {
    printf 'in one of %s and %s only ' "$library" "$archive"
    printf '(is the .map complete? ./dev abi --update):\n'
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
