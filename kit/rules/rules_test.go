package rules_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/rules"
)

func TestItemsAreHeldToTheirRules(t *testing.T) {
	t.Parallel()
	require.NoError(t, rules.Check(&accountv1.ContactInput{FirstName: "Selam"}))
	err := rules.Check(&accountv1.ContactInput{FirstName: strings.Repeat("x", 1000), Language: strings.Repeat("x", 1000)})
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_VALIDATION_FAILED))
	require.Len(t, apierr.From(err).Fields, 2)
	detail := rules.Detail(err)
	require.Contains(t, detail, "; first_name ")
	require.Contains(t, detail, "; language ")
	require.Contains(t, rules.Detail(rules.Check(&messagingv1.MessageInput{})), "; exactly one of template_id and message_body is needed", "a rule of the whole item")
	long := apierr.New(errorv1.Reason_REASON_VALIDATION_FAILED, "no").WithFields(apierr.Field{Field: "a", Message: strings.Repeat("ü", 3000)})
	require.Equal(t, 1024, utf8.RuneCountInString(rules.Detail(long)))
	require.NotContains(t, rules.Detail(errors.New("a secret of ours")), "secret")
}
