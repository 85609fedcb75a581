package identity

import (
	account "github.com/turumba/turumba/services/account"
)

// Letter is a mail of ours. There are those that functions of this file make and no others,
// so that what strangers chose comes into a mail by shown alone.
type Letter struct{ subject, text string }

// shown is a name that a stranger chose, in quotes, as far as it can do no harm; empty
// where nothing is left of it. before comes before it.
func shown(before, name string) string {
	name = account.ShownName(name)
	if name == "" {
		return ""
	}
	return before + "“" + name + "”"
}

// CodeLetter has the code of a registration. Whoever begins one chooses who gets the mail
// and the name in it, so the mail says that the code is for nobody else than who began.
func CodeLetter(fullName, code string) Letter {
	return Letter{code + " is your verification code", "Your verification code is " + code + ". It is good for 15 minutes.\n\n" +
		"A registration with this address began" + shown(" in the name of ", fullName) +
		". Enter this code only if you started this registration, and only where you started it. If you did not, ignore this mail.\n"}
}

// InvitationLetter has the token of an invitation. Whoever invites chooses the name of the
// account.
func InvitationLetter(accountName string, owner bool, token string) Letter {
	where := shown("", accountName)
	if where == "" {
		where = "an account"
	}
	as := ""
	if owner {
		as = " as an Owner: it counts among the accounts that you own, and you stay until there is another Owner, or it is closed"
	}
	return Letter{"You are invited to " + where, "You are invited to join " + where + as + ".\n\nThe token of the invitation is\n\n" + token +
		"\n\nIt is good for 7 days. If you know nobody there, ignore this mail.\n"}
}

// ResetLetter has the code for a forgotten password.
func ResetLetter(code string) Letter {
	return Letter{"Reset your password", "The code to reset your password is\n\n" + code +
		"\n\nIt is good once, for 15 minutes. If you did not ask for it, ignore this mail.\n"}
}

// KnownLetter answers a registration of a known address.
func KnownLetter() Letter {
	return Letter{"You have an account already", "Somebody tried to register with this address. You have an account already; log in with your password.\n"}
}

// BusyLetter answers a registration of an address while another one of it waits for its
// code, where the identity provider has room for one only.
func BusyLetter() Letter {
	return Letter{"Another registration of your address waits", "Somebody tried to register with this address while another registration of it waits for its code. " +
		"Enter a code only where you started the registration that it is of. If you cannot, register again in 15 minutes.\n"}
}

// PasswordLetter follows a new password.
func PasswordLetter() Letter {
	return Letter{"Your password was changed", "The password of your account was changed. If it was not you, reset it at once.\n"}
}

// FactorOffLetter follows a second factor that was turned off.
func FactorOffLetter() Letter {
	return Letter{"Your second factor is off", "The second factor of your account was turned off. If it was not you, change your password at once.\n"}
}
