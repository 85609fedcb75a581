package demo

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// progress draws one live line: a bar, the count, the rate and the time left.
type progress struct {
	out   io.Writer
	total int
	start time.Time
	live  bool // out is a terminal: redraw in place
	// from is how many were done at the first line.
	from  int
	begun bool
}

const barWidth = 30

func (p *progress) draw(done int, now time.Time) {
	if !p.begun {
		p.begun, p.from = true, done
	}
	elapsed := now.Sub(p.start).Seconds()
	rate := 0.0
	if elapsed > 0 {
		rate = float64(done-p.from) / elapsed
	}
	eta := "-"
	if rate > 0 && done < p.total {
		eta = (time.Duration(float64(p.total-done)/rate*float64(time.Second)) + time.Second/2).Truncate(time.Second).String()
	}
	filled := 0
	if p.total > 0 {
		filled = min(barWidth, done*barWidth/p.total)
	}
	line := fmt.Sprintf("  [%s%s] %d/%d  %.0f/s  ETA %s", strings.Repeat("█", filled), strings.Repeat("░", barWidth-filled), done, p.total, rate, eta)
	if p.live {
		_, _ = fmt.Fprintf(p.out, "\r%-90s", line)
		return
	}
	_, _ = fmt.Fprintln(p.out, line)
}

func (p *progress) end() {
	if p.live {
		_, _ = fmt.Fprintln(p.out)
	}
}
