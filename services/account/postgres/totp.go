package postgres

import "time"

// Totp is the second factor of a user.
type Totp struct {
	Secret    []byte
	EnabledAt *time.Time
	LastStep  int64
}
