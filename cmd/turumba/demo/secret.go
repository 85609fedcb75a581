package demo

import (
	"crypto/rand"
	"strings"
)

// randomWord makes the demo tenant's password differ at every run.
func randomWord() string { return strings.ToLower(rand.Text()[:12]) }
