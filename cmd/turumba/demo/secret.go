package demo

import (
	"crypto/rand"
	"strings"
)

// newPassword is the demo tenant's, another one at every run.
func newPassword() string { return "Demo-" + strings.ToLower(rand.Text()[:12]) + "-2026" }
