package app_test

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
)

// TestRefreshRace is S-104: of many uses of a refresh token at the same time one
// wins, its session goes on, and the others learn that they were not the first.
func TestRefreshRace(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.signUp(t, email)
	token := w.mustLogin(t, password).GetRefreshToken()
	const rivals = 8
	won := make([]*accountv1.RefreshResponse, rivals)
	lost := make([]error, rivals)
	var wg sync.WaitGroup
	for i := range rivals {
		wg.Go(func() { won[i], lost[i] = w.auth.Refresh(t.Context(), &accountv1.RefreshRequest{RefreshToken: token}) })
	}
	wg.Wait()
	winners := 0
	for i := range rivals {
		if lost[i] != nil {
			reason(t, errorv1.Reason_REASON_REFRESH_TOKEN_USED, lost[i])
			continue
		}
		winners++
		require.True(t, w.works(t, won[i].GetAccessToken()))
	}
	require.Equal(t, 1, winners)
}
