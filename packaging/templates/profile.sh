# Written by install.sh for the install @INSTALL_ID@ in @INSTALL_DIR@.
if [ -r @INSTALL_DIR@/bin ]; then
  case ":$PATH:" in
    *:@INSTALL_DIR@/bin:*) ;;
    *) PATH=$PATH:@INSTALL_DIR@/bin ;;
  esac
fi
