#!/bin/sh
# packages.sh debian|archive CMAKE CPACK CC SOURCE VERSION: builds what that preset packs, packs it,
# looks at what is in it, and builds a program against what it unpacks to, in an empty folder. Exit
# status 77: no dpkg-deb here.
set -eu
kind=$1 cmake=$2 cpack=$3 cc=$4 source=$5 version=$6

here=$(cd "$(dirname "$0")" && pwd)
if [ "$kind" = debian ] && ! command -v dpkg-deb >/dev/null; then
    echo "skipped: no dpkg-deb here"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    printf '%s\n' "$*"
    exit 1
}
quietly() { "$@" >"$work/log" 2>&1 || { cat "$work/log"; fail "failed: $*"; }; }

(cd "$source" && quietly "$cmake" --preset "$kind" -B "$work/build" -DCMAKE_C_COMPILER="$cc")
quietly "$cmake" --build "$work/build"
soname=$(readlink "$work/build/libpool/libpool.so") # libpool.so.0.1
so_version=${soname#libpool.so.}

# is_in LIST PATTERN...: each is a line there, but for what stands before it.
is_in() {
    list=$1
    shift
    for pattern in "$@"; do
        printf '%s\n' "$list" | grep -qE "/$pattern\$" || fail "no $pattern among: $list"
    done
}

headers_and_more='include/libpool\.h libpool\.so libpool\.a pkgconfig/libpool\.pc
    cmake/libpool/libpool-config\.cmake cmake/libpool/libpool-config-version\.cmake
    man3/pool_create\.3(\.gz)? man3/pool_join\.3(\.gz)? man7/libpool\.7(\.gz)?'
library="libpool\\.so\\.$so_version libpool\\.so\\.$version"

archive() {
    quietly "$cpack" -G TGZ --config "$work/build/CPackConfig.cmake" -B "$work/packages"
    quietly tar xzf "$work"/packages/libpool-"$version"-Linux-*.tar.gz -C "$work"
    root=$(echo "$work"/libpool-"$version"-Linux-*)
    # shellcheck disable=SC2086 # several words
    is_in "$(find "$root")" $headers_and_more $library
}

debian() {
    quietly "$cpack" -G DEB --config "$work/build/CPackConfig.cmake" -B "$work/packages"
    runtime=$(echo "$work/packages/libpool${so_version}_${version}"_*.deb)
    development=$(echo "$work/packages/libpool-dev_${version}"_*.deb)

    # What programs load has no file that another version has too: both can be installed.
    files=$(dpkg-deb --fsys-tarfile "$runtime" | tar t | grep -v '/$')
    # shellcheck disable=SC2086
    is_in "$files" $library
    others=$(printf '%s\n' "$files" | grep -v "/libpool\\.so\\.\\|/doc/libpool$so_version/" || true)
    [ -z "$others" ] || fail "also in $runtime: $others"

    files=$(dpkg-deb --fsys-tarfile "$development" | tar t)
    # shellcheck disable=SC2086
    is_in "$files" $headers_and_more
    ! printf '%s\n' "$files" | grep 'libpool\.so\.' || fail "$development has the library itself"

    depends=$(dpkg-deb -f "$runtime" Depends)
    case $depends in libc6*) ;; *) fail "the library depends on '$depends'" ;; esac
    depends=$(dpkg-deb -f "$development" Depends)
    case $depends in
    "libpool$so_version (= $version), libc6-dev") ;;
    *) fail "libpool-dev depends on '$depends'" ;;
    esac
    [ -n "$(dpkg-deb -f "$runtime" Maintainer)" ] || fail "$runtime has no maintainer"
    dpkg-deb -I "$runtime" triggers | grep -q ldconfig || fail "nobody runs ldconfig for $runtime"
    dpkg-deb -I "$runtime" shlibs | grep -qx "libpool $so_version libpool$so_version (>= $version)" ||
        fail "$runtime does not say what programs that are linked with it depend on"

    root=$work/root
    for package in "$work"/packages/*.deb; do # that of libpool-python, too, if it could be built
        dpkg-deb -x "$package" "$root"
    done
    root=$root/usr
}

"$kind"
for file in "$root"/lib/*.so "$root"/lib/*/*.so; do
    [ ! -e "$file" ] || ! objdump -p "$file" | grep -E 'R(UN)?PATH' || fail "$file looks elsewhere"
done
! grep -rlF -e "$work" -e "$source" "$root" || fail "these name folders of this machine"

libdir=$(dirname "$(find "$root" -name libpool.a)")
check() { # check NAME PROGRAM
    output=$(LD_LIBRARY_PATH=$libdir "$2")
    [ "$output" = "libpool $version: 6 * 7 = 42" ] || fail "$1: $output"
    echo "$1: $output"
}
flags=$(PKG_CONFIG_LIBDIR=$libdir/pkgconfig pkg-config --cflags --libs libpool)
# shellcheck disable=SC2086
"$cc" "$here/consumer/main.c" $flags -o "$work/program"
check "$kind, pkg-config" "$work/program"
quietly "$cmake" -S "$here/consumer" -B "$work/consumer" -DCMAKE_C_COMPILER="$cc" \
    -DCMAKE_PREFIX_PATH="$root"
quietly "$cmake" --build "$work/consumer"
check "$kind, find_package, shared library" "$work/consumer/consumer"
check "$kind, find_package, static library" "$work/consumer/consumer_static"
if [ -e "$libdir/pkgconfig/libpool-python.pc" ]; then
    echo '#include <libpool-python.h>
int main(void) { return pool_python_version() == 0; }' >"$work/python.c"
    flags=$(PKG_CONFIG_LIBDIR=$libdir/pkgconfig pkg-config --cflags --libs libpool-python)
    # shellcheck disable=SC2086
    quietly "$cc" "$work/python.c" $flags -o "$work/python"
    LD_LIBRARY_PATH=$libdir "$work/python" || fail "libpool-python can't be loaded"
    echo "$kind, libpool-python: loaded"
fi
