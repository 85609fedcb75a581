package config

import (
	"fmt"
	"io"
	"log/slog"
)

const mask = "***"

// Secret is a setting that must never be printed. Every way of formatting,
// logging or encoding it shows "***" (or nothing, when it is empty).
type Secret string

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String returns the mask.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return mask
}

// Format writes the mask for every verb, also for those that would bypass String.
func (s Secret) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, s.String()) }

// MarshalText returns the mask, so that JSON, YAML and map keys show it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue returns the mask.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
