#!/bin/sh
# exports.sh NM LIBRARY: it defines pool_python_* symbols, and no others.
set -eu
nm=$1 library=$2

# Absolute ones (A) are versions of symbols; newer nms append @@VERSION.
symbols=$("$nm" --defined-only -D "$library" |
    awk 'NF == 3 && $2 != "A" { sub("@.*", "", $3); print $3 }' | sort)
strangers=$(printf '%s\n' "$symbols" | grep -v '^pool_python_' || true)
if [ -n "$strangers" ]; then
    printf 'exported by mistake:\n%s\n' "$strangers"
    exit 1
fi
printf '%s\n' "$symbols" | grep -qx pool_python_create || { echo "no pool_python_create"; exit 1; }
echo "$(printf '%s\n' "$symbols" | wc -l) symbols, all of them pool_python_*"
