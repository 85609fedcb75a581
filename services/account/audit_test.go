package account

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestChangesAreNamedAsTheContractNamesThem(t *testing.T) {
	t.Parallel()
	type noun struct {
		ID              string
		ContactGroupIDs []string
		APIKeyID        string
		IdpSubject      string
		Secret          []byte
		Free            json.RawMessage
		UserIDsSeen     int
	}
	before := &noun{ID: "1", APIKeyID: "a", Secret: []byte("x")}
	after := &noun{ID: "2", ContactGroupIDs: []string{"g"}, IdpSubject: "s", Secret: []byte("y"), Free: json.RawMessage(`{"a":1}`), UserIDsSeen: 1}
	require.JSONEq(t, `{
		"contact_group_ids": {"to": ["g"]}, "api_key_id": {"from": "a"}, "idp_subject": {"to": "s"}, "free": {"to": {"a": 1}}, "user_ids_seen": {"to": 1}
	}`, string(Changes(before, after)))
	require.JSONEq(t, `{}`, string(Changes(before, before)))
	require.JSONEq(t, `{"api_key_id": {"to": "a"}}`, string(Changes(nil, before)))
	require.JSONEq(t, `{"api_key_id": {"from": "a"}}`, string(Changes(before, nil)))
}
