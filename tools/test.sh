#!/usr/bin/env bash
# Runs go test over the given packages and counts what was skipped. With
# CI=true a skip is a failure, so that CI never passes by not looking.
set -euo pipefail

log=$(mktemp)
trap 'rm -f "$log"' EXIT
set +e
go test -v "$@" 2>&1 | tee "$log" | grep -vE '^(=== |[[:space:]]*--- (PASS|SKIP)|PASS$|\?[[:space:]])'
status=${PIPESTATUS[0]}
set -e
passed=$(grep -cE '^[[:space:]]*--- PASS' "$log" || true)
failed=$(grep -cE '^[[:space:]]*--- FAIL' "$log" || true)
skipped=$(grep -cE '^[[:space:]]*--- SKIP' "$log" || true)
if [ "$skipped" -gt 0 ]; then
	echo "skipped:"
	grep -E -A2 '^[[:space:]]*--- SKIP' "$log"
	if [ "${CI:-}" = true ]; then
		echo "CI allows no skip" >&2
		status=1
	fi
fi
if [ "$passed" -eq 0 ]; then
	echo "no test ran" >&2
	status=1
fi
echo "$passed passed, $failed failed, $skipped skipped"
exit $status
