package email

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strconv"

	"github.com/turumba/turumba/kit/egress"
	"github.com/turumba/turumba/services/messaging/channel"
)

// Codes of what happened without an SMTP reply.
const (
	codeConnect    = "connect_failed"
	codeTLS        = "tls_failed"
	codeNoStartTLS = "starttls_missing"
	codePlaintext  = "plaintext_refused"
	codeNoAuth     = "login_unavailable"
	codeLost       = "connection_lost"
	codeTimeout    = "timeout"
	codeProtocol   = "protocol_error"
	codeCancelled  = "cancelled"
	codeInvalid    = "message_invalid"
	codeRecipient  = "recipient_invalid"
	codeTooBig     = "message_too_big"
	codeNoUTF8     = "smtputf8_missing"
	codeClosed     = "channel_closed"
)

// textOf is the fixed sentence for a code.
func textOf(code string) string {
	switch code {
	case codeConnect:
		return "could not connect to the mail server"
	case codeTLS:
		return "could not set up a trusted encrypted connection to the mail server"
	case codeNoStartTLS:
		return "the mail server does not offer encryption"
	case codePlaintext:
		return "an unencrypted connection is not allowed for this channel"
	case codeNoAuth:
		return "the mail server offers no login method that can be used"
	case codeLost:
		return "the mail server closed the connection"
	case codeTimeout:
		return "the mail server did not answer in time"
	case codeProtocol:
		return "the mail server's answer could not be understood"
	case codeCancelled:
		return "the attempt was stopped"
	case codeRecipient:
		return "the recipient's address is not an e-mail address"
	case codeTooBig:
		return "the message is larger than the mail server accepts"
	case codeNoUTF8:
		return "the mail server does not take international addresses"
	case codeClosed:
		return "the channel was closed"
	default:
		return code
	}
}

func fail(class channel.Class, code string) channel.Result {
	return channel.Fail(class, code, textOf(code))
}

// invalid is the result of a message that cannot be sent anywhere; err is one of
// this package's own and holds no content.
func invalid(err error) channel.Result {
	return channel.Result{Outcome: channel.Rejected, Class: channel.ClassPermanentContent, Code: codeInvalid, Text: err.Error()}
}

func tooBig() channel.Result {
	return channel.Result{Outcome: channel.Rejected, Class: channel.ClassPermanentContent, Code: codeTooBig, Text: textOf(codeTooBig)}
}

func badRecipient(code string) channel.Result {
	return channel.Result{Outcome: channel.Rejected, Class: channel.ClassPermanentRecipient, Code: code, Text: textOf(code)}
}

// dialFailure does not tell a forbidden destination from a closed port, except
// in its class.
func dialFailure(ctx context.Context, err error) channel.Result {
	switch {
	case ctx.Err() != nil:
		return fail(channel.ClassTransient, codeCancelled)
	case errors.Is(err, egress.ErrForbidden):
		return fail(channel.ClassConfig, codeConnect)
	default:
		return fail(channel.ClassTransient, codeConnect)
	}
}

// tlsFailure is a matter of settings when the certificate is not trusted, and of
// the moment otherwise.
func tlsFailure(ctx context.Context, err error) channel.Result {
	var untrusted *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	switch {
	case ctx.Err() != nil:
		return fail(channel.ClassTransient, codeCancelled)
	case errors.As(err, &untrusted), errors.As(err, &authority), errors.As(err, &name):
		return fail(channel.ClassConfig, codeTLS)
	default:
		return fail(channel.ClassTransient, codeTLS)
	}
}

// ioCode names an error of an established connection.
func ioCode(ctx context.Context, err error) string {
	var timeout net.Error
	switch {
	case ctx.Err() != nil:
		return codeCancelled
	case errors.Is(err, errProtocol):
		return codeProtocol
	case errors.As(err, &timeout) && timeout.Timeout():
		return codeTimeout
	default:
		return codeLost
	}
}

// refused turns a 4xx or 5xx reply into a Result; anything else is a protocol
// error. Literals are values to hide, such as the recipient's address.
func refused(redact *channel.Redactor, at stage, r reply, literals ...string) channel.Result {
	if r.code < 400 {
		return fail(channel.ClassTransient, codeProtocol)
	}
	s, text := cutStatus(r.text)
	if s != (status{}) {
		text = bytes.ReplaceAll(text, []byte("\n"+s.String()+" "), []byte("\n"))
	}
	res := channel.Result{
		Outcome: channel.Rejected,
		Class:   classify(at, r.code, s, text),
		Code:    strconv.Itoa(r.code),
		SubCode: s.String(),
		Text:    redact.Clean(string(text), channel.MaxText, literals...),
	}
	res.RawExcerpt = redact.Clean(at.String()+": "+res.Code+" "+string(r.text), channel.MaxExcerpt, literals...)
	if r.code < 500 {
		res.RetryAfter = retryHint(text)
	}
	return res
}
