package identity

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/vault"
	account "github.com/turumba/turumba/services/account"
)

// deviceLife is how long a device is known after its last login.
const deviceLife = 180 * 24 * time.Hour

// Device is something that somebody logged in with before.
type Device struct {
	// ID tells devices apart.
	ID string `json:"id"`
	// Address is the digest of the address that it logged in with.
	Address string `json:"address"`
	// Until is when it is forgotten.
	Until time.Time `json:"until"`
}

// of reports whether the device has logged in with the address.
func (d Device) of(email string) bool {
	return d.ID != "" && d.Address == Digest(account.NormalEmail(email))
}

// Devices gives devices tokens by which they are known again. A token is sealed, and no row
// is kept. It grants a budget of its own at its address and is no proof of anything, so it
// goes on when the password changes or the sessions end: its owner must not have to wait
// then, and who stole it may guess as often as from one side.
type Devices struct {
	Vault *vault.Vault
	Clock clock.Clock
}

// DeviceAAD is the place of a device in its token.
var DeviceAAD = vault.AAD{Account: "platform", Resource: "device", Field: "device_token", Version: 1}

// Give makes the token of a device that logged in with the address. One that showed a
// token stays the same device.
func (d Devices) Give(a Asker, email string) (string, error) {
	device := Device{ID: account.NewID(), Address: Digest(account.NormalEmail(email)), Until: d.Clock.Now().Add(deviceLife)}
	if a.Knows(email) {
		device.ID = a.Device.ID
	}
	plain, err := json.Marshal(device)
	if err != nil {
		return "", fmt.Errorf("write a device: %w", err)
	}
	sealed, err := d.Vault.Seal(DeviceAAD, plain)
	if err != nil {
		return "", fmt.Errorf("seal a device: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sealed), nil
}

// shown is the device that a request shows a token of; zero for none, and for one that has
// not logged in with the address of the request.
func (d Devices) shown(req proto.Message) Device {
	r, ok := req.(interface{ GetDeviceToken() string })
	if !ok || r.GetDeviceToken() == "" {
		return Device{}
	}
	device := d.open(r.GetDeviceToken())
	if about, ok := req.(interface{ GetEmail() string }); ok && !device.of(about.GetEmail()) {
		return Device{}
	}
	return device
}

// open is the device of a token; zero for one that is not ours, or too old.
func (d Devices) open(token string) (device Device) {
	sealed, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return Device{}
	}
	plain, err := d.Vault.Open(DeviceAAD, sealed)
	if err != nil || json.Unmarshal(plain, &device) != nil || !d.Clock.Now().Before(device.Until) {
		return Device{}
	}
	return device
}
