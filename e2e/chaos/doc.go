// Package chaos kills what runs, with signal 9 and in the middle of a group
// send, starts it again, and holds the ledger against what the simulator's
// journal says was really received. The ordinary tests run a small send with few
// kills; `make chaos` the full one.
package chaos
