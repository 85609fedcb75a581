// Package demo walks the product as a newcomer would, over REST: it registers
// an organisation, fills an address book, connects an SMTP channel, sends one
// personalised group message and accounts for every recipient.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/turumba/turumba/kit/clock"
)

// Config says what to send and through what.
type Config struct {
	// BaseURL is the gateway, for example http://127.0.0.1:8080.
	BaseURL string
	// SMTPHost and SMTPPort are the provider simulator.
	SMTPHost string
	SMTPPort int
	// Contacts is how many people get the message.
	Contacts int
	// BodyBytes is the size of each rendered text; 0 means a short one.
	BodyBytes int
	// Connections is how many SMTP connections the channel keeps.
	Connections int
	// Code finds the newest verification code that was mailed to an address.
	Code func(ctx context.Context, email string) (string, error)
	// Clock times the progress line.
	Clock clock.Clock
	// Out gets the story; Live redraws the progress line in place.
	Out  io.Writer
	Live bool
}

// Result is what became of the send.
type Result struct {
	GroupMessageID string
	Email          string
	Password       string
	Recipients     int
	Sent           int
	Failed         int
	Skipped        int
	Unknown        int
	Cancelled      int
	Status         string
	// Seconds runs from the accepted send to the commit that ended the group.
	Seconds float64
}

// group is the part of a group message that the demo reads.
type group struct {
	ID          string     `json:"id"`
	Status      string     `json:"status"`
	Total       int        `json:"total_recipients"`
	Pending     int        `json:"pending_count"`
	Sent        int        `json:"sent_count"`
	Failed      int        `json:"failed_count"`
	Cancelled   int        `json:"cancelled_count"`
	Unknown     int        `json:"unknown_count"`
	Skipped     int        `json:"skipped_count"`
	UpdatedAt   time.Time  `json:"updated_at"`
	CompletedAt *time.Time `json:"completed_at"`
}

// Run plays the demo once.
func Run(ctx context.Context, cfg Config) (Result, error) {
	d := newPlayer(cfg)
	res := Result{Email: ownerEmail, Password: newPassword()}
	if err := d.signUp(ctx, res.Email, res.Password); err != nil {
		return res, err
	}
	people, err := readContacts(cfg.Contacts)
	if err != nil {
		return res, err
	}
	groupID, _, err := d.fillAddressBook(ctx, people)
	if err != nil {
		return res, err
	}
	channelID, err := d.connect(ctx, "an SMTP channel", d.smtpChannel("School office"))
	if err != nil {
		return res, err
	}
	templateID, err := d.writeTemplate(ctx)
	if err != nil {
		return res, err
	}
	g, accepted, err := d.send(ctx, channelID, templateID, groupID)
	if err != nil {
		return res, err
	}
	final, err := d.follow(ctx, g.ID, cfg.Contacts, ended)
	if err != nil {
		return res, err
	}
	return finish(res, final, accepted), nil
}

func finish(res Result, g group, accepted time.Time) Result {
	res.GroupMessageID, res.Status = g.ID, g.Status
	res.Recipients, res.Sent, res.Failed = g.Total, g.Sent, g.Failed
	res.Skipped, res.Unknown, res.Cancelled = g.Skipped, g.Unknown, g.Cancelled
	if g.CompletedAt != nil {
		res.Seconds = g.CompletedAt.Sub(accepted).Seconds()
	}
	return res
}

// ownerEmail is who registers the demo tenant.
const ownerEmail = "owner@demo.example"

// player holds what the steps share.
type player struct {
	cfg Config
	api *api
}

func newPlayer(cfg Config) *player {
	return &player{cfg: cfg, api: &api{base: cfg.BaseURL, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}}}
}

func (d *player) say(format string, a ...any) { _, _ = fmt.Fprintf(d.cfg.Out, format+"\n", a...) }

func (d *player) signUp(ctx context.Context, email, password string) error {
	d.say("• register %s, read the code from the mailbox, verify, log in", email)
	var registered struct {
		Token string `json:"registration_token"`
	}
	err := d.api.call(ctx, http.MethodPost, "/v1/auth/register", map[string]any{
		"email": email, "password": password, "full_name": "Demo Owner", "account_name": "Demo School",
	}, &registered)
	if err != nil {
		return err
	}
	code, err := d.cfg.Code(ctx, email)
	if err != nil {
		return err
	}
	verify := map[string]any{"email": email, "code": code, "registration_token": registered.Token}
	if err := d.api.call(ctx, http.MethodPost, "/v1/auth/verify-email", verify, nil); err != nil {
		return err
	}
	var tokens struct {
		AccessToken string `json:"access_token"`
	}
	if err := d.api.call(ctx, http.MethodPost, "/v1/auth/login", map[string]any{"email": email, "password": password}, &tokens); err != nil {
		return err
	}
	d.api.token = tokens.AccessToken
	return nil
}

// batchSize is the most contacts of one batch create.
const batchSize = 1000

// fillAddressBook stores people and makes a group of them.
func (d *player) fillAddressBook(ctx context.Context, people []contact) (groupID string, ids []string, err error) {
	var g struct{ ID string }
	if err := d.api.call(ctx, http.MethodPost, "/v1/groups", map[string]any{"name": "Parents"}, &g); err != nil {
		return "", nil, err
	}
	d.say("• create %d contacts in the group \"Parents\"", len(people))
	for part := range slices.Chunk(people, batchSize) {
		added, err := d.addContacts(ctx, g.ID, part)
		if err != nil {
			return "", nil, err
		}
		ids = append(ids, added...)
	}
	return g.ID, ids, nil
}

func (d *player) addContacts(ctx context.Context, groupID string, part []contact) (ids []string, err error) {
	var created struct {
		Results []struct {
			Contact struct{ ID string }
		}
	}
	if err := d.api.call(ctx, http.MethodPost, "/v1/contacts/batch", map[string]any{"contacts": part}, &created); err != nil {
		return nil, err
	}
	for _, r := range created.Results {
		if r.Contact.ID == "" {
			return nil, errors.New("a demo contact was not created")
		}
		ids = append(ids, r.Contact.ID)
	}
	return ids, d.api.call(ctx, http.MethodPost, "/v1/groups/"+groupID+"/contacts", map[string]any{"contact_ids": ids}, nil)
}

// smtpChannel leads to the simulator's SMTP server.
func (d *player) smtpChannel(name string) map[string]any {
	return map[string]any{
		"name": name, "connections": d.cfg.Connections,
		"credentials": map[string]any{"smtp": map[string]any{
			"host": d.cfg.SMTPHost, "port": d.cfg.SMTPPort, "tls_mode": "none", "allow_plaintext": true,
			"from_email": "office@demo.example", "from_name": "Demo School", "subject_template": "News for {FIRST_NAME}",
		}},
	}
}

// connect creates a channel and verifies it.
func (d *player) connect(ctx context.Context, what string, body map[string]any) (id string, err error) {
	d.say("• connect %s to the simulator and verify it", what)
	var ch struct {
		ID     string
		Status string
	}
	if err := d.api.call(ctx, http.MethodPost, "/v1/channels", body, &ch); err != nil {
		return "", err
	}
	id = ch.ID
	if err := d.api.call(ctx, http.MethodPost, "/v1/channels/"+id+"/verify", nil, &ch); err != nil {
		return "", err
	}
	if ch.Status != "connected" {
		return "", fmt.Errorf("the channel is %s, expected connected", ch.Status)
	}
	return id, nil
}

func (d *player) writeTemplate(ctx context.Context) (string, error) {
	body := "Dear {FIRST_NAME} {LAST_NAME},\n\nthe school year in {CITY} starts on {START_DATE}. We look forward to seeing you.\n\n{SENDER_NAME}\n{ACCOUNT_NAME}\n"
	if n := d.cfg.BodyBytes - len(body); n > 0 {
		const line = "The timetable, the menu and the bus plan follow below, as every year.\n"
		body += strings.Repeat(line, n/len(line)+1)[:n]
	}
	var t struct {
		ID        string
		Variables []string
	}
	if err := d.api.call(ctx, http.MethodPost, "/v1/templates", map[string]any{"name": "Start of the school year", "body": body}, &t); err != nil {
		return "", err
	}
	d.say("• write a template with %s", strings.Join(t.Variables, ", "))
	return t.ID, nil
}

func (d *player) send(ctx context.Context, channelID, templateID, groupID string) (group, time.Time, error) {
	g, err := d.sendGroup(ctx, map[string]any{
		"name": "Start of the school year", "channel_id": channelID, "template_id": templateID,
		"contact_group_ids": []string{groupID}, "custom_values": map[string]string{"START_DATE": "7 September"},
	})
	if err != nil {
		return g, time.Time{}, err
	}
	d.say("• send it: group message %s is %s", g.ID, g.Status)
	return g, g.UpdatedAt, nil
}

// sendGroup creates a draft and sends it.
func (d *player) sendGroup(ctx context.Context, draft map[string]any) (g group, err error) {
	if err := d.api.call(ctx, http.MethodPost, "/v1/group-messages", draft, &g); err != nil {
		return g, err
	}
	return g, d.api.call(ctx, http.MethodPost, "/v1/group-messages/"+g.ID+"/send", nil, &g)
}

// giveUp is how long a send is followed without an answer.
const giveUp = time.Minute

// ended reports whether every recipient has an outcome.
func ended(g group) bool { return g.CompletedAt != nil }

// follow draws the progress of a send to total people until enough is true of it, or
// until it has ended. The stream ends with its token, with an idle minute or with a
// restart of the server, so it is opened again as needed.
func (d *player) follow(ctx context.Context, id string, total int, enough func(group) bool) (group, error) {
	p := progress{out: d.cfg.Out, total: total, start: d.cfg.Clock.Now(), live: d.cfg.Live}
	defer p.end()
	var g group
	heard := d.cfg.Clock.Now()
	for {
		err := d.api.watch(ctx, "/v1/group-messages/"+id+"/watch", func(line []byte) (bool, error) {
			if err := json.Unmarshal(line, &g); err != nil {
				return false, fmt.Errorf("watch: %w: %s", err, line)
			}
			heard = d.cfg.Clock.Now()
			p.draw(g.Sent+g.Failed+g.Cancelled, heard)
			return !enough(g) && !ended(g), nil
		})
		switch {
		case enough(g) || ended(g):
			return g, nil
		case ctx.Err() != nil:
			return g, ctx.Err()
		case err != nil && d.cfg.Clock.Now().Sub(heard) > giveUp:
			return g, err
		}
		if err := clock.Sleep(ctx, d.cfg.Clock, 200*time.Millisecond); err != nil {
			return g, err
		}
	}
}
