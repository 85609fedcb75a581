// Package bench measures the hot paths beside their references, in one run on
// one machine: absolute figures move with the machine, the ratios are what
// counts. `make bench` runs it; nothing here fails because something is slow.
package bench
