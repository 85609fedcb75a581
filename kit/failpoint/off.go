//go:build !chaos

package failpoint

import "context"

// Hit does nothing in this build.
func Hit(context.Context, Point) error { return nil }
