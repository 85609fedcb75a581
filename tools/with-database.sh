#!/usr/bin/env bash
# Prints which of the packages have tests on a database of kit/pg/pgtest.
set -euo pipefail
go list -f '{{.ImportPath}} {{join .TestImports " "}} {{join .XTestImports " "}}' "$@" | awk '/kit\/pg\/pgtest( |$)/ {print $1}'
