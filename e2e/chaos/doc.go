// Package chaos breaks what runs and holds the ledger against the client's log of
// what was accepted and the simulator's journal of what was really received.
//
// TestFaults is a table of fault rows, one for each entry of docs/chaos.md, on a few
// meshes of the four binaries, built with failpoints and with a proxy on every way
// between them; each mesh takes one row after the other. A row is a function in a
// *_rows_test.go file and a line in the table there: it makes an account with
// trial.tenant, breaks something, and says what it did; the harness lets the mesh come
// to rest and checks the invariants. The ordinary tests run the quick rows small
// (`make chaos-quick`), `make chaos` runs all of them in full.
//
// The other tests kill, with signal 9, the binaries as people run them, in the middle
// of a group send and of an import.
package chaos
