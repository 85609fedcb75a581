package bounds_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "github.com/turumba/turumba/gen/turumba/account/v1"
	_ "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/bounds"
)

// TestEveryRequestHasABound: an RPC whose request could be of any size fails here, with
// the field that says no max_len, max_items or max_pairs.
func TestEveryRequestHasABound(t *testing.T) {
	t.Parallel()
	n := 0
	var problems []error
	protoregistry.GlobalFiles.RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		if !strings.HasPrefix(string(fd.Package()), "turumba.") {
			return true
		}
		for i := range fd.Services().Len() {
			methods := fd.Services().Get(i).Methods()
			for j := range methods.Len() {
				limits, err := bounds.Of(methods.Get(j))
				if err != nil {
					problems = append(problems, err)
					continue
				}
				require.Positive(t, limits.Wire)
				require.LessOrEqual(t, limits.Wire, 8<<20)
				require.LessOrEqual(t, limits.Wire, limits.JSON)
				t.Logf("%-70s %8d %8d", methods.Get(j).FullName(), limits.Wire, limits.JSON)
				n++
			}
		}
		return true
	})
	require.NoError(t, errors.Join(problems...))
	require.Greater(t, n, 100)
}
