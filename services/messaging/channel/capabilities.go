package channel

// Capabilities say what an adapter can carry, whoever the channel belongs to. They are
// asked before any work is accepted, so that nobody learns from a provider what was
// known beforehand. The zero value carries a short text and sets it no limit.
type Capabilities struct {
	// MaxText is the longest text in characters; 0 means no limit but our own.
	MaxText int
	// MaxBytes is the longest message as it travels, attachments included; 0 means no
	// limit that is known beforehand.
	MaxBytes int
	// MaxAttachments is how many files a message carries, MaxAttachmentBytes how long
	// they are together before they are encoded; 0 means none.
	MaxAttachments, MaxAttachmentBytes int
	// MaxInFlight is how many calls one worker may have open on a channel.
	MaxInFlight int
	// Subject, HTML and ReplyTo are what a message may have beside its text.
	Subject, HTML, ReplyTo bool
	// Unsubscribe says that a message can offer a way out that mail programs show.
	Unsubscribe bool
	// Receipts says that the provider reports what became of a message, Lookup that it
	// can be asked, and Inbound that it passes on what people answer.
	Receipts, Lookup, Inbound bool
}

// Capabilities are those of the adapter that serves the type and provider; the zero
// value if there is none.
func (a Adapters) Capabilities(channelType, provider string) Capabilities {
	adapter, ok := a.For(channelType, provider)
	if !ok {
		return Capabilities{}
	}
	return adapter.Capabilities()
}
