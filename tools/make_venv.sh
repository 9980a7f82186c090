#!/bin/sh
# Make the virtual environment FOLDER if it is not there, and install pcmc into it, editable and with its kernels
# built anew. Where this machine lacks something, one line says what.
#
#   tools/make_venv.sh FOLDER        PYTHON and CC in the environment, if set, say which to take
set -eu
venv=$1

missing() {
    echo "pcmc: $*" >&2
    exit 1
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        new_enough "$PYTHON" || missing "PYTHON=$PYTHON is not Python 3.11 or newer"
        return
    fi
    for PYTHON in python3.13 python3.12 python3.11 python3 python; do
        if new_enough "$PYTHON"; then return; fi
    done
    missing "Python 3.11 or newer is missing; install it (Debian, Ubuntu: apt install python3 python3-venv)" \
        "or name it: make PYTHON=/path/to/python3 ..."
}

compiles() { # $1 may hold options, as in "gcc -pthread"
    printf '#include <math.h>\n#include <stdint.h>\nint main(void) { return 0; }\n' >"$scratch/trial.c"
    $1 -o "$scratch/trial" "$scratch/trial.c" >/dev/null 2>&1
}

# The compiler that Python was built with may not be there while another one is.
find_compiler() {
    if [ -n "${CC:-}" ]; then
        compiles "$CC" || missing "CC=$CC does not compile C"
        return
    fi
    if compiles "$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_config_var("CC") or "cc")')"; then
        return
    fi
    for CC in cc gcc clang; do
        if compiles "$CC"; then
            export CC
            return
        fi
    done
    missing "a C compiler is missing; install one (Debian, Ubuntu: apt install gcc libc6-dev; Fedora: dnf install gcc)"
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

if [ -x "$venv/bin/python" ]; then
    PYTHON=$venv/bin/python
    find_compiler
else
    find_python
    find_compiler
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
        missing "$PYTHON has no venv module; install it (Debian, Ubuntu: apt install python3-venv)"
    echo "Making $venv with $("$PYTHON" --version)"
    "$PYTHON" -m venv "$venv"
fi
echo "Installing pcmc and what it needs into $venv (a minute or two the first time)"
rm -f accel/_kernels*.so # of the last time; must not stay if the kernels do not compile now
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[test]"
"$venv/bin/python" -c 'import pcmc.accel._kernels' 2>/dev/null ||
    echo "pcmc: the kernels did not compile (are Python's headers there? Debian, Ubuntu: apt install python3-dev);" \
        "it goes on with their numpy twins, which are slow" >&2
