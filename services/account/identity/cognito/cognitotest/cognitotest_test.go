package cognitotest_test

import (
	"testing"

	"github.com/turumba/turumba/services/account/identity/cognito/cognitotest"
)

// TestInstall fetches the emulator ahead of other tests; `make deps` runs it.
func TestInstall(t *testing.T) {
	t.Parallel()
	cognitotest.Start(t)
}
