// Package blocks runs work that takes a large block of memory for a moment and leaves it
// as garbage, as the check of a password does with its 32 MiB.
//
// GOGC is a part of what lives, and a block that is in use lives: with GOGC at 400, two
// checks at once let the heap grow by 320 MiB before anything is collected. So while blocks
// are in use a memory limit stands in for GOGC: what the heap may have grown to without
// blocks, and the blocks that can be in use at once (ADR 0054).
package blocks

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"

	"golang.org/x/sync/semaphore"
)

// cores is how many blocks are in use at once: more work would only wait for a core, with
// its block in memory.
var cores = int64(runtime.GOMAXPROCS(0))

// places and pace are the process's, as its cores and its heap are.
var (
	places = semaphore.NewWeighted(cores)
	paced  = &pace{heap: runtimeHeap{}, most: cores}
)

// Run waits for a place, in the order of arrival, and runs f, which takes a block of so
// many bytes.
func Run(ctx context.Context, size int64, f func()) error {
	if err := places.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("wait for memory: %w", err)
	}
	defer places.Release(1)
	paced.begin(size)
	defer paced.end(size)
	f()
	return nil
}

// pace is the limit of the process's memory while blocks are in use.
type pace struct {
	heap heap
	most int64 // blocks in use at once

	mu     sync.Mutex
	limit  int64 // ours; 0 while there is none
	need   int64 // bytes of the blocks that can be in use at once
	before int64 // the one of the environment, or none
	used   int64 // bytes of the blocks in use
	seen   int64 // bytes of the blocks that were in use since the last collection
}

// heap is what the pace sees and sets of Go's memory.
type heap interface {
	// read returns what lives, how large the heap may grow until it is collected, and what
	// else of Go's memory is in use.
	read() (live, goal, other int64)
	// setLimit sets the limit of all of it and returns the one before; -1 changes nothing.
	setLimit(limit int64) (before int64)
	// collected calls f after the next collection.
	collected(f func())
}

func (p *pace) begin(size int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used += size
	p.seen += size
	if p.limit != 0 {
		return
	}
	_, goal, other := p.heap.read()
	p.before = p.heap.setLimit(-1)
	p.need = p.most * size
	p.limit = goal + other + p.need - size // it is noticed by the block that exceeds it
	p.heap.setLimit(min(p.before, p.limit))
	p.heap.collected(p.next)
}

func (p *pace) end(size int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used -= size
}

// next comes after each collection: without a block since the one before, GOGC alone sets
// the pace again. If more lives than when the limit was set, blocks aside, as much as that
// may come to it, or nothing but collecting would be done.
func (p *pace) next() {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.seen
	p.seen = p.used
	if seen == 0 {
		p.limit = 0
		p.heap.setLimit(p.before)
		return
	}
	live, _, other := p.heap.read()
	least := other + min(seen, p.need) + 2*max(0, live-seen)
	p.heap.setLimit(min(p.before, max(p.limit, least)))
	p.heap.collected(p.next)
}

// runtimeHeap is the heap of this process.
type runtimeHeap struct{}

func (runtimeHeap) read() (live, goal, other int64) {
	names := []string{
		"/gc/heap/live:bytes", "/gc/heap/goal:bytes", "/memory/classes/total:bytes",
		"/memory/classes/heap/released:bytes", "/memory/classes/heap/objects:bytes", "/memory/classes/heap/free:bytes",
	}
	samples := make([]metrics.Sample, len(names))
	for i, name := range names {
		samples[i].Name = name
	}
	metrics.Read(samples)
	value := func(i int) int64 { return int64(min(samples[i].Value.Uint64(), math.MaxInt64/8)) }
	return value(0), value(1), value(2) - value(3) - value(4) - value(5)
}

func (runtimeHeap) setLimit(limit int64) int64 { return debug.SetMemoryLimit(limit) }

func (runtimeHeap) collected(f func()) { AfterCollection(f) }

// AfterCollection calls f after the next collection, which finds an object that nobody holds.
func AfterCollection(f func()) {
	type sentinel struct{ _ *sentinel }
	runtime.AddCleanup(&sentinel{}, func(f func()) { f() }, f)
}
