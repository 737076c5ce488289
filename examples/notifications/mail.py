#!/usr/bin/env python3
"""Hands one mail to a mail server; all of it comes from the environment."""

import os
import smtplib
import sys
from email.message import EmailMessage

message = EmailMessage()
for header in ("From", "To", "Subject"):
    message[header] = " ".join(os.environ["MAIL_" + header.upper()].split())
message.set_content(os.environ["MAIL_BODY"])
try:
    with smtplib.SMTP(os.environ["MAIL_SERVER"], timeout=5) as server:
        server.send_message(message)
except OSError as error:  # those of smtplib as well
    sys.exit(f"{os.environ['MAIL_SERVER']}: {error}")
