package fanout

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/services/messaging"
)

// TestFresh: nobody is handled twice, wherever in a stretch they stand, and contacts and
// recipients given by address have a cursor each.
func TestFresh(t *testing.T) {
	t.Parallel()
	contact := func(id string) messaging.Recipient { return messaging.Recipient{ContactID: id} }
	given := func(id string) messaging.Recipient { return messaging.Recipient{AddressID: id} }
	p := &plan{cursor: "b"}
	for _, c := range []struct{ list, want []messaging.Recipient }{
		{nil, nil},
		{[]messaging.Recipient{contact("a"), contact("b"), contact("c"), contact("c"), contact("d")}, []messaging.Recipient{contact("c"), contact("d")}},
		{[]messaging.Recipient{contact("d")}, nil},
		{[]messaging.Recipient{given("a"), given("b")}, []messaging.Recipient{given("a"), given("b")}},
		{[]messaging.Recipient{contact("e"), contact("d"), contact("f")}, []messaging.Recipient{contact("e"), contact("f")}},
	} {
		before := slices.Clone(c.list)
		require.ElementsMatch(t, c.want, p.fresh(c.list))
		require.Equal(t, before, c.list, "the stretch is its giver's")
	}
	require.Equal(t, []string{"f", "b"}, []string{p.cursor, p.address})
}
