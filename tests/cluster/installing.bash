# shellcheck shell=bash
# Debian's packages for the scripts beside this file, which source it.

# "COMMANDS" PACKAGES...: installs the packages where one of the commands is missing.
provide() {
    local each missing=
    for each in $1; do command -v "$each" > /dev/null || missing=yes; done
    shift
    if [ -n "$missing" ]; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" > /dev/null
    fi
}
