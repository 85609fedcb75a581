package golden_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/kit/secrets"
)

// TestContractIsComplete walks the descriptors: an RPC without an access rule,
// an idempotency level, or a route (or `internal`) must not exist.
func TestContractIsComplete(t *testing.T) {
	t.Parallel()
	routes := map[string]protoreflect.FullName{}
	for _, md := range wire.Methods() {
		auth := wire.AuthOf(md)
		require.NotNil(t, auth.GetRule(), "%s has no access rule", md.FullName())
		opts, _ := md.Options().(*descriptorpb.MethodOptions)
		require.NotEqual(t, descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN, opts.GetIdempotencyLevel(), "%s has no idempotency level", md.FullName())
		rule, _ := proto.GetExtension(md.Options(), annotations.E_Http).(*annotations.HttpRule)
		internal := auth.GetInternal() != nil
		require.Equal(t, internal, rule.GetPattern() == nil, "%s needs a route, or to be internal", md.FullName())
		require.True(t, !internal || len(auth.GetInternal().GetCallers()) > 0, "%s names no caller", md.FullName())
		if !internal {
			verb, path := wire.Route(md)
			require.NotContains(t, routes, verb+" "+path, "%s shares its route", md.FullName())
			routes[verb+" "+path] = md.FullName()
			require.True(t, verb != "GET" || opts.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS, "%s is a GET with effects", md.FullName())
		}
		if md.IsStreamingServer() {
			require.True(t, auth.GetStream(), "%s streams without saying so", md.FullName())
		}
	}
}

// secretName is how secrets are called, and nothing else but pages' tokens.
var secretName = regexp.MustCompile(`(^|_)(password|secret|token|otpauth_uri|recovery_codes|session)$`)

// TestSecretsAreMarked: whatever an answer has that is named like a secret is marked as one,
// so that logs leave it out and it is stored sealed.
func TestSecretsAreMarked(t *testing.T) {
	t.Parallel()
	for _, md := range wire.Methods() {
		eachField(md.Output(), map[protoreflect.FullName]bool{}, func(fd protoreflect.FieldDescriptor) {
			if secretName.MatchString(string(fd.Name())) && !strings.HasSuffix(string(fd.Name()), "page_token") {
				require.True(t, secrets.Is(fd), fd.FullName())
			}
		})
	}
}

// TestDestinationsAreStated: every field beside a secret says whether it is a destination of
// it (ADR 0042), in every message of the contract.
func TestDestinationsAreStated(t *testing.T) {
	t.Parallel()
	withSecrets := 0
	var walk func(list protoreflect.MessageDescriptors)
	walk = func(list protoreflect.MessageDescriptors) {
		for i := range list.Len() {
			require.NoError(t, secrets.Check(list.Get(i)))
			if len(secrets.Fields(list.Get(i))) > 0 {
				withSecrets++
			}
			walk(list.Get(i).Messages())
		}
	}
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if strings.HasPrefix(string(f.Package()), "turumba.") {
			walk(f.Messages())
		}
		return true
	})
	require.Positive(t, withSecrets)
}

func eachField(md protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool, do func(protoreflect.FieldDescriptor)) {
	if seen[md.FullName()] {
		return
	}
	seen[md.FullName()] = true
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		do(fd)
		if fd.Message() != nil {
			eachField(fd.Message(), seen, do)
		}
	}
}
