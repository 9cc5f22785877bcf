#!/bin/sh
# Removes this install: programs, configuration and all data of this node.
self=$(readlink -f "$0") || exit 1
install=${self%/releases/*}
exec "$install/sbin/mainstay-install" uninstall "$@"
