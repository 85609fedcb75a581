package demo

import (
	"context"
	"fmt"
	"net/http"
)

// tourSeconds is at least how long the campaigns would last that something happens in
// the midst of: their channels have a rate for it.
const tourSeconds = 20

// Numbers that begin with refusedPhones are refused by the simulator while the tour wants it.
const (
	takenPhones   = "+25191"
	refusedPhones = "+25192"
)

// prepare makes the organisation, its address book, its channels and its text.
func (t *tour) prepare(ctx context.Context) error {
	t.password = newPassword()
	if err := t.signUp(ctx, ownerEmail, t.password); err != nil {
		return err
	}
	people, err := tourPeople(t.cfg.Contacts)
	if err != nil {
		return err
	}
	var ids []string
	if t.groupID, ids, err = t.fillAddressBook(ctx, people); err != nil {
		return err
	}
	t.excludedID = ids[0]
	t.say("• let %s opt out of e-mail", people[1].Email)
	err = t.api.call(ctx, http.MethodPost, "/v1/suppressions", map[string]any{
		"channel_type": "email", "address": people[1].Email, "reason": "unsubscribed",
	}, nil)
	if err != nil {
		return err
	}
	if err := t.connectAll(ctx); err != nil {
		return err
	}
	t.templateID, err = t.writeTemplate(ctx)
	return err
}

// tourPeople have phones besides, of which the simulator can refuse every tenth; the
// last one has no e-mail address.
func tourPeople(n int) ([]contact, error) {
	people, err := readContacts(n)
	if err != nil {
		return nil, err
	}
	for i := range people {
		begin := takenPhones
		if i%10 == 9 {
			begin = refusedPhones
		}
		people[i].Phone = fmt.Sprintf("%s%07d", begin, i)
	}
	people[n-1].Email = ""
	return people, nil
}

func (t *tour) connectAll(ctx context.Context) (err error) {
	perMinute := t.cfg.Contacts * 60 / tourSeconds
	slow := t.smtpChannel("Newsletter")
	slow["rate_limit"] = perMinute
	texts := map[string]any{
		"name": "Texts", "connections": t.cfg.Connections, "rate_limit": perMinute,
		"credentials": map[string]any{"twilio": map[string]any{
			"account_sid": "AC00000000000000000000000000000001", "auth_token": newPassword(), "from_number": "+15550001111", "base_url": t.cfg.TwilioURL,
		}},
	}
	if t.office, err = t.connect(ctx, "an SMTP channel", t.smtpChannel("School office")); err != nil {
		return err
	}
	if t.slow, err = t.connect(ctx, fmt.Sprintf("one that takes %d e-mails a minute", perMinute), slow); err != nil {
		return err
	}
	t.texts, err = t.connect(ctx, fmt.Sprintf("a Twilio channel that takes %d texts a minute", perMinute), texts)
	return err
}

// newsletter is the e-mail campaign on a channel.
func (t *tour) newsletter(channelID string) map[string]any {
	return map[string]any{
		"name": "Start of the school year", "channel_id": channelID, "template_id": t.templateID, "contact_group_ids": []string{t.groupID},
		"exclude_contact_ids": []string{t.excludedID}, "custom_values": map[string]string{"START_DATE": "7 September"},
	}
}
