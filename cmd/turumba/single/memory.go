package single

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// PeakMiB is the most memory that this process ever had resident (VmHWM), in
// MiB; 0 where the system does not say.
func PeakMiB() int { return kiB("/proc/self/status", "VmHWM:") / 1024 }

// PostgresMiB is what the own PostgreSQL's processes hold together now, shared
// pages counted once (PSS), in MiB; 0 where the system does not say.
func (in *Instance) PostgresMiB() int {
	if in.Postgres == nil {
		return 0
	}
	sum := 0
	for _, pid := range in.Postgres.PIDs() {
		sum += kiB(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:")
	}
	return sum / 1024
}

// kiB reads one figure of a file of /proc.
func kiB(file, key string) int {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), key); ok {
			n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(value, "kB")))
			if err == nil {
				return n
			}
		}
	}
	return 0
}
