// Package security attacks the whole mesh: whatever one organisation sends, it
// learns and changes nothing of another; a role does what its permissions say
// and nothing else; and only good tokens open anything. The matrices are made
// from the contract, so a new RPC without a fixture fails. `make security`
// prints one line per suite, also for the fuzz targets and property tests that live
// elsewhere; docs/security-tests.md names the test of each attack.
package security
