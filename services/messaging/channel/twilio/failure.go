package twilio

import (
	"context"
	"errors"
	"net"

	"github.com/turumba/turumba/kit/egress"
	"github.com/turumba/turumba/services/messaging/channel"
)

// Codes of what happened without an answer of Twilio's.
const (
	codeConnect   = "connect_failed"
	codeLost      = "connection_lost"
	codeTimeout   = "timeout"
	codeProtocol  = "protocol_error"
	codeCancelled = "cancelled"
	codeClosed    = "channel_closed"
	codeRecipient = "recipient_invalid"
	codeInvalid   = "message_invalid"
	codeTooBig    = "message_too_big"
	codeInactive  = "account_not_active"
)

// textOf is the fixed sentence for a code.
func textOf(code string) string {
	switch code {
	case codeConnect:
		return "could not connect to Twilio"
	case codeLost:
		return "Twilio ended the connection without an answer"
	case codeTimeout:
		return "Twilio did not answer in time"
	case codeProtocol:
		return "Twilio's answer could not be understood"
	case codeCancelled:
		return "the attempt was stopped"
	case codeClosed:
		return "the channel was closed"
	case codeRecipient:
		return "the recipient's address is not a phone number with its country"
	case codeInvalid:
		return "a text message needs a text"
	case codeTooBig:
		return "the text is longer than 1600 characters"
	case codeInactive:
		return "the Twilio account is not active"
	default:
		return code
	}
}

func fail(class channel.Class, code string) channel.Result {
	return channel.Fail(class, code, textOf(code))
}

func lost(code string) channel.Result { return channel.Lost(code, textOf(code)) }

// refuse is the result of a message that need not be sent to know.
func refuse(class channel.Class, code string) channel.Result {
	return channel.Result{Outcome: channel.Rejected, Class: class, Code: code, Text: textOf(code)}
}

// silence turns the error of a request into a Result. The error itself holds the URL
// and is never repeated. ctx is the caller's, call that of the request.
func silence(ctx, call context.Context, handed bool, err error) channel.Result {
	switch {
	case handed:
		return lost(silenceCode(ctx, call, err))
	case ctx.Err() != nil:
		return fail(channel.ClassTransient, codeCancelled)
	case errors.Is(err, egress.ErrForbidden), errors.Is(err, egress.ErrPlaintext):
		return fail(channel.ClassConfig, codeConnect)
	default:
		return fail(channel.ClassTransient, codeConnect)
	}
}

// silenceCode tells by the error too: the client's own limit may be over a moment
// before that of the request.
func silenceCode(ctx, call context.Context, err error) string {
	var network net.Error
	switch {
	case ctx.Err() != nil:
		return codeCancelled
	case call.Err() != nil, errors.As(err, &network) && network.Timeout():
		return codeTimeout
	default:
		return codeLost
	}
}
