#!/usr/bin/env bash
# Runs the tests that docs/inputs.md names, and tells for each id whether they passed.
set -euo pipefail
cd "$(dirname "$0")/.."

mapfile -t rows < <(grep -E '^\| [A-Z][0-9]+ \|' docs/inputs.md)
tests=$(printf '%s\n' "${rows[@]}" | grep -oE '`(Test|Fuzz)[A-Za-z0-9]+`' | tr -d '`' | sort -u)
pattern="^($(paste -sd'|' <<<"$tests"))\$"
dirs=$(grep -rlE "^func ($(paste -sd'|' <<<"$tests"))\(" --include=*_test.go . | xargs -n1 dirname | sort -u)

# shellcheck disable=SC2086 # one argument for each folder
out=$(CI=true go test -count=1 -v -run "$pattern" $dirs || true)
passed=$(sed -n 's/^--- PASS: \([A-Za-z0-9]*\) .*/\1/p' <<<"$out" | sort -u)
failed=$(sed -n 's/^ *--- \(FAIL\|SKIP\): \([A-Za-z0-9]*\).*/\2/p' <<<"$out" | sort -u)

bad=0
for row in "${rows[@]}"; do
	id=$(cut -d' ' -f2 <<<"$row")
	named=$(grep -oE '`(Test|Fuzz)[A-Za-z0-9]+`' <<<"$row" | tr -d '`' || true)
	state=passed
	[ -n "$named" ] || state="no test yet"
	for t in $named; do
		grep -qx "$t" <<<"$passed" || state="$t did not pass"
		! grep -qx "$t" <<<"$failed" || state="$t failed or was skipped"
	done
	[ "$state" = passed ] || bad=1
	printf '%-4s %s\n' "$id" "$state"
done
exit $bad
