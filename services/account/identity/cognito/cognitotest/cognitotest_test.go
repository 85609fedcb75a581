package cognitotest_test

import (
	"testing"

	"github.com/turumba/turumba/services/account/identity/cognito/cognitotest"
)

// TestStart also fetches the emulator ahead of other tests; `make deps` runs it.
func TestStart(t *testing.T) {
	t.Parallel()
	cognitotest.Start(t)
}
